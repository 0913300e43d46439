"""How the tables came to be what they are, one file a step; `links.migrate` goes through them."""
