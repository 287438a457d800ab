"""`turnout demo`: the whole loop, played live on real data and measured."""
