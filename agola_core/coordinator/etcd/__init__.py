"""The coordinator on an etcd cluster, for stores shared by several machines."""
