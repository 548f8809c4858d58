"""The answer to searches: the index finds labels, and the view turns them into hits.

    index   labels and distances of the nearest rows
    view    ids and payloads of these labels, verified

A query reads a `Source`: one incarnation of a collection. It takes no lock and starts no thread;
`service.searcher` has the queue and the threads. Writes may replace points while the index is searched.
`search` counts the labels that are gone by then, and repeats the search for more.
"""
