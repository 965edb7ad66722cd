update idempotent_calls set status = $2, answer = $3 where key = $1
