"""A name has one valid key, which the database sees to."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give keys that share a name their id beside it, then let no more of them be."""
    op.execute(
        "UPDATE api_keys SET name = substr(name, 1, 87) || ' ' || id WHERE revoked IS NULL AND"
        " EXISTS (SELECT 1 FROM api_keys AS other WHERE other.name = api_keys.name"
        " AND other.revoked IS NULL AND other.id < api_keys.id)"
    )
    valid = sa.text("revoked IS NULL")
    op.create_index(
        "uq_api_keys_name", "api_keys", ["name"], unique=True,
        sqlite_where=valid, postgresql_where=valid,
    )  # fmt: skip


def downgrade() -> None:
    """Let names be shared again."""
    op.drop_index("uq_api_keys_name", "api_keys")
