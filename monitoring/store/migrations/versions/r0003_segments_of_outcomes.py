"""An outcome is in a segment of each segmentation, so its segments are a longer text."""

from alembic import op
from sqlalchemy import String, Text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Give the text no bound. SQLite copies the table for that."""
    with op.batch_alter_table("outcomes") as outcomes:
        outcomes.alter_column(
            "segment", existing_type=String(128), type_=Text, existing_nullable=False
        )
