select request, status, answer from idempotent_calls where key = $1
