select observed, count(*) from stream_definitions group by observed
