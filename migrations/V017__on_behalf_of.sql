-- Where callers log in, an actor is who has logged in. Whom they name in their call is who they say they act for; null where
-- they name nobody, and where nobody logs in: the actor is who the call names then.
alter table event_decisions add column on_behalf_of text;
alter table operations add column on_behalf_of text,
                       -- who has asked for what `asked` says, if they have logged in
                       add column asked_by text;
alter table view_pauses add column on_behalf_of text,
                        add column resumed_on_behalf_of text;
alter table skipped_ranges add column on_behalf_of text;
alter table api_keys add column on_behalf_of text,
                     add column revoked_by text;
