-- Nothing is inserted where the view is paused already.
insert into view_pauses (view, reason, actor) values ($1, $2, $3)
on conflict (view) where resumed_at is null do nothing
