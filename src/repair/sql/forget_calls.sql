-- In passing, a few at a time.
delete from idempotent_calls
where key in (select key from idempotent_calls
              where created_at < now() - interval '7 days'
              order by created_at
              limit 100
              for update skip locked)
