"""The coordinator on an etcd cluster, for stores that several machines share."""
