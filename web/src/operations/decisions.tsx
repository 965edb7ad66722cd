// Who decided what, and why.
import { useAsk } from '../api';
import { change, narrow, place, to } from '../router';
import { Time } from '../time';
import { CopyCurl, Empty, Pager, Shown, Table, Typed, Value } from '../widgets';
import { Status } from './held';
import type { Decision } from './model';

export function Decisions() {
  const { query, hash } = place.value;
  const [action, key, by] = [query.get('action') ?? '', hash.get('key') ?? '', hash.get('actor') ?? ''];
  const asked = new URLSearchParams({ pageSize: '50' });
  if (action) asked.set('action', action);
  if (key) asked.set('key', key);
  if (by) asked.set('actor', by);
  const cursor = query.get('cursor');
  if (cursor) asked.set('cursor', cursor);
  const list = useAsk<{ items: Decision[] }>(`/ops/decisions?${asked}`, { every: 5000 });
  return (
    <>
      <div class="filters">
        <label><span>Kind</span>
          <select value={action} onChange={(event) => narrow({ action: event.currentTarget.value })}>
            <option value="">any</option><option>skip</option><option>replace</option><option>redrive</option>
          </select>
        </label>
        <Typed label="Order" data-filter value={key} set={(key) => narrow({}, { key })} />
        <Typed label="By" value={by} set={(actor) => narrow({}, { actor })} />
        <div class="tools"><CopyCurl path={`/ops/decisions?${asked}`} what="decisions" /></div>
      </div>
      <Shown of={list} what="decisions">
        {({ items }) => items.length === 0 ? <Empty>{action || key || by ? 'No decision matches.' : 'Nobody has decided anything yet. Decisions are made at held orders and dead letters, and stay here.'}</Empty> : <Decided items={items} />}
      </Shown>
      <Pager asked={list} go={(cursor) => change({ cursor }, { replace: false })} />
    </>
  );
}

export function Decided({ items }: { items: Decision[] }) {
  return (
    <Table label="Decisions">
      <thead><tr><th scope="col" class="num">Decision</th><th scope="col">Kind</th><th scope="col">Status</th><th scope="col">Order</th><th scope="col" class="num">Number</th><th scope="col">Why</th><th scope="col">By</th><th scope="col">Decided</th></tr></thead>
      <tbody>
        {items.map((one) => (
          <tr key={one.id}>
            <td class="num">{one.id}</td>
            <td>{one.action}</td>
            <td><Status of={one.status} /></td>
            <td class="mono">{one.key === null ? <Value of={null} /> : <a href={to(['orders', one.key])}>{one.key}</a>}</td>
            <td class="num">{one.sequence === null ? '–' : one.sequenceTo !== null && one.sequenceTo !== one.sequence ? `${one.sequence} to ${one.sequenceTo}` : one.sequence}</td>
            <td class="wide">{one.reason}{one.refused && <p class="error">Refused: {one.refused}</p>}</td>
            <td>{one.actor}{one.onBehalfOf && ` for ${one.onBehalfOf}`}</td>
            <td><Time at={one.decidedAt} /></td>
          </tr>
        ))}
      </tbody>
    </Table>
  );
}
