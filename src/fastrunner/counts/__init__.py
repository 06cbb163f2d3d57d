"""Support: what is counted (`definitions`), where (`cells`), and how it is read (`scrape`)."""
