delete from stream_leftovers where topic = $1
