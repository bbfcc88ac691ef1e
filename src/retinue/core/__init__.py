"""The rules of retinue: how a write becomes certain, and stays so.

What is promised
----------------
A write that was answered `committed` is on the leader's disk and on the disks of `k` followers, and no later leader
will ever have a history without it. A strong read sees every write that was answered before it began. A write that was
refused was not written. Everything else is honestly unknown: it may still take effect. Whoever gives a write a request
id may send it again, and it takes effect once.

How it is kept
--------------
Every write gets a *version*, a slot numbered 1, 2, 3, ... Each slot is decided as in Multi-Paxos with flexible quorums:

* a leader owns an *epoch*, a number that no other node can have;
* an entry is committed once `W = k + 1` nodes have accepted it in the leader's epoch;
* a node leads only after `P` nodes have promised to accept nothing from any lower epoch, and have said what they hold;
* `P + W > N`, so those who promise always include one that holds what was committed.

That inequality is the whole argument; `quorum.py` states it. The rest closes what it leaves open. Messages overtake
each other, so each version is acknowledged by itself and commits by itself, above holes if need be. A new leader
closes the holes: it takes the copy with the highest accept epoch, passes over what the start of a later epoch proves
never to have been committed, and puts a noop where nothing is left. It shows and acknowledges nothing new before all it
found is committed again, for otherwise a certain write could stand above an uncertain one. A follower trusts only what
its present leader has sent it and called committed.

No clock takes part in any of this. Time decides only when something is sent again and when somebody stops waiting.

How it is written
-----------------
Events go in, effects come out: `Replica.step(event, now_ms)` returns a list, and a driver performs it in order, saves
first and durably. There is no I/O here, no thread, no randomness and no log line, so that a simulator drives the same
code as the node does, a thousand times faster and with every kind of accident. A broken invariant is an assertion: the
node stops rather than guess.

In which order to read
----------------------
1. `quorum`: the two counting rules, and who owns an epoch.
2. `messages`: everything that goes in, comes out, or travels.
3. `log`: versions with holes, the newest row of each key, what is trusted.
4. `acceptor`: what every node does on a message from a leader or candidate.
5. `takeover`: from the first link to leadership; `Merge` settles what was found.
6. `leader`: assigning versions and counting acknowledgements. It leans on `progress` and `supply` (one follower, and
   what it is sent), `joining` (a follower's link and promise), `waiting` (who waits for which version), `conditions`
   (compare-and-set), `rounds` (strong reads), and `reconfiguration` (changing `k`, admitting a replaced node).
7. `replica`: which role a node is in. What it never forgets is in `durable`, what a read may return in `reads`.

What is left out
----------------
* Sharding. One leader's throughput is the limit; run several clusters.
* Operations. The leader evaluates conditions and counters and replicates results, so that no two nodes can differ.
* Leases. A strong read costs a round trip; in return no clock can make it wrong.
* Elections. A restarted leader seals its own cluster again, and somebody may promote another node. Who should try is
  decided outside; that it is safe to try is decided here.
* Changing the number of nodes. A node may be replaced under its name, which is an entry in the log; `N` is fixed.
* Repair of a history that differs. Such a node goes into quarantine and says so; wiping it is for people to decide.
* Malice. Nodes may be slow, cut off, restarted or wiped, but they do not lie.
"""
