"""What consumers' tables went through, a step a file; `consumers.migrate` goes through them."""
