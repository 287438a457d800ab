"""The files of the offline store, and the SQL that reads them."""
