"""Attempts on several nodes, and where workers are reached

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("attempts") as batch_op:
        batch_op.add_column(sa.Column("node", sa.Integer(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("nodes", sa.Integer(), nullable=False, server_default="1"))
        batch_op.add_column(sa.Column("meeting", sa.JSON(none_as_null=True), nullable=True))
    with op.batch_alter_table("workers") as batch_op:
        batch_op.add_column(sa.Column("address", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("workers") as batch_op:
        batch_op.drop_column("address")
    with op.batch_alter_table("attempts") as batch_op:
        batch_op.drop_column("meeting")
        batch_op.drop_column("nodes")
        batch_op.drop_column("node")
