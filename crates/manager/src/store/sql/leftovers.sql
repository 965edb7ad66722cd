select topic, name, deleted_by, deleted_at from stream_leftovers
