"""The catalogue, as people write it: files and single items into the topic `items`, and what that topic says."""
