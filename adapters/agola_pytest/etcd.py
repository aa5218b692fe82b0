"""Real etcd servers and clusters, in pytest and outside of it (from `agola_pytest.servers`)."""

from agola_pytest.servers.etcd import EtcdMissingError, EtcdServer, EtcdStartError, SharedEtcd, start_etcd
from agola_pytest.servers.etcd_cluster import EtcdCluster, start_etcd_cluster

__all__ = [
    "EtcdCluster",
    "EtcdMissingError",
    "EtcdServer",
    "EtcdStartError",
    "SharedEtcd",
    "start_etcd",
    "start_etcd_cluster",
]
