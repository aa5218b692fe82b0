"""The drawing of a run's graph: boxes apart from each other, and no curve behind one."""

import re
from collections import Counter
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from agola_core.runservice.model.graph import with_levels
from agola_core.runservice.model.types import Depend, RunConfig, RunConfigTask
from agola_http.page.run.graph import HEIGHT, WIDTH, layout


@st.composite
def configs(draw):
    tasks = {}
    for number in range(draw(st.integers(0, 9))):
        above = draw(st.sets(st.sampled_from(sorted(tasks)), max_size=3)) if tasks else ()
        depends = {name: Depend(task_id=name, conditions=[]) for name in above}
        tasks[f"t{number}"] = RunConfigTask(id=f"t{number}", name=f"t{number}", depends=depends)
    return RunConfig(id="r", tasks=with_levels(tasks))


def points(path):
    return [(int(x), int(y)) for x, y in re.findall(r"(-?\d+) (-?\d+)", path)]


@given(configs(), st.dictionaries(st.sampled_from([f"t{number}" for number in range(9)]), st.sampled_from("ab")))
def test_boxes_stand_apart_and_no_curve_goes_behind_one(config, folds):
    drawn = layout(config, {name: (fold, f"{fold} …") for name, fold in folds.items()})
    box_of = {
        task.id: f"fold:{folds[task.id]}:{task.level}" if task.id in folds else task.id
        for task in config.tasks.values()
    }
    assert {box.id: box.size for box in drawn.boxes} == Counter(box_of.values())
    assert {box.id: box.fold for box in drawn.boxes} == {box_of[name]: folds.get(name, "") for name in box_of}
    for one, other in combinations(drawn.boxes, 2):
        assert one.x != other.x or abs(one.y - other.y) > HEIGHT
    for box in drawn.boxes:
        assert 0 <= box.x <= drawn.width - WIDTH
        assert 0 <= box.y <= drawn.height - HEIGHT
    depends = {(box_of[parent], box_of[task.id]) for task in config.tasks.values() for parent in task.depends}
    assert Counter((edge.parent, edge.child) for edge in drawn.edges) == Counter(depends)
    at = {box.id: box for box in drawn.boxes}
    for edge in drawn.edges:
        way = points(edge.path)
        assert way[0] == (at[edge.parent].x + WIDTH, at[edge.parent].y + HEIGHT // 2)
        assert way[-1] == (at[edge.child].x, at[edge.child].y + HEIGHT // 2)
        for x, y in way[1:-1]:
            assert not any(box.x <= x <= box.x + WIDTH and box.y <= y <= box.y + HEIGHT for box in drawn.boxes)


def test_a_graph_without_tasks_is_drawn():
    assert layout(RunConfig(id="r")).boxes == ()
