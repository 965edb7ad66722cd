// Queries that people run on the engines, and the way to end one.
import { useState } from 'preact/hooks';
import { ask, Problem, useAsk } from '../api';
import { NoManager } from '../query/none';
import { Time } from '../time';
import { Act, bytes, CopyCurl, count, Empty, Failure, Shown, Table } from '../widgets';

interface Query {
  id: string;
  engine: string;
  owner: string;
  sqlScript: string;
  startedAt: string;
  endsAt: string;
  isRead: boolean;
  rows: number;
  bytes: number;
}

export function Queries() {
  const [off, setOff] = useState(false);
  const list = useAsk<{ items: Query[] }>('/api/queries', { every: off ? 0 : 2000 });
  if (!off && list.error?.code === 'manager_not_enabled') setOff(true);
  const [stopping, setStopping] = useState<Set<string>>(new Set());
  const [problem, setProblem] = useState<Problem | null>(null);
  const stop = async (id: string) => {
    setStopping((before) => new Set([...before, id]));
    setProblem(null);
    try {
      await ask(`/api/queries/${id}`, { method: 'DELETE' });
      list.again();
    } catch (error) {
      setProblem(error as Problem);
      setStopping((before) => new Set([...before].filter((one) => one !== id)));
    }
  };
  if (off) return <NoManager />;
  return (
    <>
      <div class="tools"><CopyCurl path="/api/queries" what="running queries" /></div>
      {problem && <Failure problem={problem} />}
      <Shown of={list} what="running queries">
        {({ items }) => items.length === 0 ? <Empty>No query runs on any engine.</Empty> : (
          <Table label="Running queries">
            <thead><tr><th scope="col">SQL</th><th scope="col">Engine</th><th scope="col">Owner</th><th scope="col">Begun</th><th scope="col">Ends at the latest</th><th scope="col" class="num">Rows</th><th scope="col" class="num">Bytes</th><th scope="col">Read</th><th scope="col">Stop</th></tr></thead>
            <tbody>
              {items.map((query) => (
                <tr key={query.id}>
                  <td class="mono wide">{query.sqlScript}</td><td>{query.engine}</td><td>{query.owner}</td><td><Time at={query.startedAt} /></td><td><Time at={query.endsAt} /></td>
                  <td class="num">{count(query.rows)}</td><td class="num">{bytes(query.bytes)}</td><td>{query.isRead ? 'yes' : 'nobody reads it'}</td>
                  <td><Act right="runStreams" onClick={() => void stop(query.id)} why={stopping.has(query.id) ? 'Stopping …' : ''}>Stop</Act></td>
                </tr>
              ))}
            </tbody>
          </Table>
        )}
      </Shown>
    </>
  );
}
