// What is said where nothing runs streaming SQL.
import { Empty } from '../widgets';

export function NoManager() {
  return (
    <Empty>
      Nothing runs streaming SQL here: <code>manager.enabled</code> turns it on. It needs an engine: the one in this program, where that was built in
      (<code>embedded-engine</code>), or that of <code>flink.gateway_url</code> or <code>ksqldb.url</code>.
    </Empty>
  );
}
