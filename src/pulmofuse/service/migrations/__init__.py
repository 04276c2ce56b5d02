"""Changes of the tables, in order; `database.open_database` runs what is missing."""
