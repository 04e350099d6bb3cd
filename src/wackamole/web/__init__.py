"""`wackamole web`: the cluster as a page that lives, served by a process that needs no rights.

overview.py, following.py    what the daemon says, and what it means; shared with `watch`
feed.py                      what a page has to be told that knows something already       pure
server.py                    three files and a stream of server-sent events, read only
page.html, page.css, page.js the page; nothing is fetched from anywhere else
"""
