-- Who has called it off is not overruled, and readers are switched by a word only where it waits for one.
update operations set asked = $2, asked_by = $3, updated_at = now()
where id = $1 and state = 'running' and ($2 = 'cancel' or (asked is distinct from 'cancel' and phase = 'ready'))
