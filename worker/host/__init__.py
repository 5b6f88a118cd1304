"""What node and agents need of the host: processes, addresses, and the records that they leave for each other on disk."""
