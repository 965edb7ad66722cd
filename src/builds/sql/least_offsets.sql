-- The least offset of each partition that the build is known to have consumed: of what it applied, parked or refused.
-- Reads the whole ledger.
select known.partition, min(known."offset")
from (select partition, "offset" from ledger where partition >= 0
      union all
      select partition, "offset" from parked_events where view = $1 and build = $2 and topic = $3
      union all
      select partition, "offset" from dead_letters where view = $1 and build = $2 and topic = $3) known
group by known.partition
