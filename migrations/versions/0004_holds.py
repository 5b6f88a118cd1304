"""Checkpoints that jobs begin with the weights of, kept until those have ended

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "checkpoint_holds",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("checkpoint_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoints.id"]),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index("ix_checkpoint_holds_checkpoint", "checkpoint_holds", ["checkpoint_id"])


def downgrade() -> None:
    op.drop_index("ix_checkpoint_holds_checkpoint", table_name="checkpoint_holds")
    op.drop_table("checkpoint_holds")
