-- A transaction of the relay sits between its statements while Kafka is asked; a process that sleeps must not keep the lock
-- for ever.
begin;
set local idle_in_transaction_session_timeout = '30s'
