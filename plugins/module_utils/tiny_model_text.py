# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The text that the lab model's tokenizer learned its merges from.  Changing a word changes the model's digest."""

from __future__ import annotations

TEXT = """
A bedplate is the iron base that an engine is bolted to. It does not turn, it does not burn, and nobody writes songs
about it. It holds the engine still, so that the engine can do its work. When the bedplate is level and the bolts are
tight, the shaft runs true and the bearings stay cool. When it is not, the finest engine in the world shakes itself to
pieces. The people who laid bedplates measured twice, poured the grout slowly, and came back the next morning to
measure again before the first bolt was drawn.

A machine that answers questions is an engine too. It needs a host that boots, a disk that keeps its secrets, a door
that opens for those who may enter and for nobody else, and a clock that is right. It needs a name that others can
verify, and a record of what it was given and what it gave back. The question goes in, the words come out one after
the other, and between the two there is a great deal of arithmetic. What the people in the house asked stays in the
house: the questions of the patients, the books of the bank, the drawings of the factory.

First look at what is there, and say everything that is wrong at once. Then change only what has to be changed, and
change it so that doing it a second time changes nothing. Prove from the outside that it works: ask the service as a
stranger would ask it, with the wrong key and with the right one, from another machine, over the network. Write down
what could not be proved. Keep the old version until the new one has answered. If the power fails in the middle, the
machine must come back by itself, and it must come back to what it was or to what it was going to be, but never to
something in between.

At three in the morning nobody wants to read a long message. One sentence is enough: what happened, where it happened,
what was found there, and what to do next. The person who reads it has a telephone in one hand and a cold cup of tea
in the other. Be kind to that person. It may be you.
"""
