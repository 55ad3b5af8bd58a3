"""The local live board: a web page that shows what a store holds and how far it can be trusted."""
