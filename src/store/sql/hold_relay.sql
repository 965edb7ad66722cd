-- Waits for the relay that publishes for the view, and lets none begin until the end of the transaction.
select pg_advisory_xact_lock(hashtextextended($1, 0))
