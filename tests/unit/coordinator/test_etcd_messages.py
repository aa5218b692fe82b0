"""The messages of etcd's protocol."""

import gc
import weakref

from agola_core.coordinator.etcd import messages


def test_classes_of_fields_are_not_collected_between_two_messages():
    """protobuf would make them again, in whichever thread then reads a message."""
    answer = messages.TXN.response()
    answer.responses.add().response_range.kvs.add(key=b"k")
    answer.header.revision = 1
    data = answer.SerializeToString()

    def classes():
        read = messages.TXN.response.FromString(data)
        found = read.responses[0].response_range
        return [weakref.ref(type(one)) for one in (read.header, read.responses[0], found, found.kvs[0])]

    del answer
    gc.collect()
    before = classes()
    gc.collect()
    assert [kind() for kind in classes()] == [kind() for kind in before]
    assert None not in [kind() for kind in before]
