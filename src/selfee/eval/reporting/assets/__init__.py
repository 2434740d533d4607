"""Style and script of the report's page: plain files, put into the page as they are."""
