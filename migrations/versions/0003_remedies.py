"""What attempts do otherwise than the spec says, and stretches that a run trained again by itself

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("attempts") as batch_op:
        batch_op.add_column(sa.Column("remedy", sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column("rewinds", sa.JSON(none_as_null=True), nullable=True))
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.add_column(sa.Column("remedy", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.drop_column("remedy")
    with op.batch_alter_table("attempts") as batch_op:
        batch_op.drop_column("rewinds")
        batch_op.drop_column("remedy")
