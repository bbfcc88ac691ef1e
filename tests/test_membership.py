"""Under which names and addresses members are known."""

from __future__ import annotations

from retinue.core.messages import HardState
from retinue.membership import members_of, refuse_members, with_own_url
from retinue.settings import load


def test_a_node_knows_best_where_its_clients_reach_it() -> None:
    told = members_of(load({"followers": "follower1:8001,follower2:8002", "peer_host": "leader"}, {}))
    assert [member.peer_address for member in told] == ["leader:9000", "follower1:9001", "follower2:9002"]

    silent = load({"role": "follower"}, {})
    assert with_own_url(silent, "follower2", told) == told

    advertising = load({"role": "follower", "advertise_url": "http://127.0.0.1:18002"}, {})
    corrected = with_own_url(advertising, "follower2", told)
    assert corrected[:2] == told[:2]
    assert (corrected[2].peer_address, corrected[2].http_url) == ("follower2:9002", "http://127.0.0.1:18002")


def test_a_node_whose_data_belongs_to_a_member_takes_no_other_name() -> None:
    """Epochs are owned by members: two disks that swap their names could lead in one epoch."""
    told = members_of(load({"followers": "a:8001,b:8002", "peer_host": "leader"}, {}))
    follower = load({"role": "follower"}, {})
    blank, named = HardState("x"), HardState("x", name="follower2", nodes=3, cluster_id="c")
    assert refuse_members(follower, blank, "leader", "follower1", told) == ""
    assert refuse_members(follower, named, "leader", "follower2", told) == ""
    refusal = refuse_members(follower, named, "leader", "follower1", told)
    assert refusal == "leader calls this node follower1, its data says follower2: name the followers in their order."
