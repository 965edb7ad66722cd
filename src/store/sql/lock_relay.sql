-- One relay at a time publishes for a view; the lock goes with the transaction.
select pg_try_advisory_xact_lock(hashtextextended($1, 0))
