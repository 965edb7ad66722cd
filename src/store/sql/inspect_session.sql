-- Who we are here, and by what kind of connection.
select current_user::text, current_database()::text, current_setting('server_version'),
       s.ssl, s.version, s.cipher,
       coalesce(inet_server_addr() <<= '127.0.0.0/8' or inet_server_addr() = '::1', true),
       pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
       (select source from pg_settings where name = 'default_transaction_read_only')
from pg_stat_ssl s
where s.pid = pg_backend_pid()
