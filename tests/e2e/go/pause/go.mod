module vecstow.test/pause

go 1.26.0
