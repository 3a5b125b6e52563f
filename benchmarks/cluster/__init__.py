"""A cluster on one machine whose hosts are killed at random, with their disks."""
