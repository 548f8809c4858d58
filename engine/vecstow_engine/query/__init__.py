"""The answer to one search: `unfiltered` and `filtered` find labels, and `resolve` turns them into hits.

    index   labels and distances of the nearest rows
    view    ids and payloads of these labels, verified

A query reads a `Source`: one incarnation of a collection. It takes no lock and starts no thread;
`service.searcher` has the queue and the threads. Writes may replace points while the index is searched.
`resolve` counts the labels that are gone by then, and the search is repeated for more.
"""
