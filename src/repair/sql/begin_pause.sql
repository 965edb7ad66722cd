-- Nothing is inserted where the view is paused already.
insert into view_pauses (view, reason, actor, on_behalf_of) values ($1, $2, $3, $4)
on conflict (view) where resumed_at is null do nothing
