// Who called what: every call that changed something, and every refusal. For administrators.
import { useAsk } from '../api';
import { change, narrow, place } from '../router';
import { forbidden, may } from '../session';
import { Time } from '../time';
import { Between, CopyCurl, count, Empty, Pager, Shown, State, Table, Typed, Value } from '../widgets';

interface Entry {
  id: number;
  at: string;
  principal: string | null;
  method: string;
  route: string;
  target: string;
  status: number;
  outcome: string;
  code: string | null;
  traceId: string;
  address: string;
  calls: number;
}

export function Audit() {
  const { query, hash } = place.value;
  const reason = may('administer') ? '' : forbidden('administer');
  const [outcome, principal, from, to] = [query.get('outcome') ?? '', hash.get('principal') ?? '', query.get('from') ?? '', query.get('to') ?? ''];
  const asked = new URLSearchParams({ pageSize: '50' });
  if (outcome) asked.set('outcome', outcome);
  if (principal) asked.set('principal', principal);
  if (from) asked.set('from', from);
  if (to) asked.set('to', to);
  const cursor = query.get('cursor');
  if (cursor) asked.set('cursor', cursor);
  const list = useAsk<{ items: Entry[] }>(reason ? null : `/ops/audit?${asked}`, { every: 5000 });
  if (reason) return <Empty>{reason}</Empty>;
  return (
    <>
      <div class="filters">
        <label><span>Outcome</span>
          <select value={outcome} onChange={(event) => narrow({ outcome: event.currentTarget.value })}><option value="">any</option><option>done</option><option>refused</option><option>failed</option></select></label>
        <Typed label="By" data-filter value={principal} set={(principal) => narrow({}, { principal })} />
        <Between label="Called" from={from} to={to} />
        <div class="tools"><CopyCurl path={`/ops/audit?${asked}`} what="the audit log" /></div>
      </div>
      <Shown of={list} what="the audit log">
        {({ items }) => items.length === 0 ? <Empty>{outcome || principal || from || to ? 'No call matches.' : 'Nothing was changed and nobody was refused yet.'}</Empty> : (
          <Table label="Audit log">
            <thead><tr><th scope="col">At</th><th scope="col">By</th><th scope="col">Call</th><th scope="col">Outcome</th><th scope="col" class="num">Times</th><th scope="col">From</th><th scope="col">Trace</th></tr></thead>
            <tbody>
              {items.map((entry) => (
                <tr key={entry.id}>
                  <td><Time at={entry.at} /></td><td><Value of={entry.principal} /></td><td class="mono wide">{entry.method} {entry.target}</td>
                  <td><State kind={entry.outcome === 'done' ? 'good' : entry.outcome === 'refused' ? 'bad' : 'wait'}>{entry.outcome}</State> <span class="muted">{entry.status}{entry.code && ` ${entry.code}`}</span></td>
                  <td class="num">{count(entry.calls)}</td><td class="mono">{entry.address}</td><td class="mono small">{entry.traceId}</td>
                </tr>
              ))}
            </tbody>
          </Table>
        )}
      </Shown>
      <Pager asked={list} go={(cursor) => change({ cursor }, { replace: false })} />
    </>
  );
}
