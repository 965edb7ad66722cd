// Streams: the list, a new one, and one of them.
import type { PageProps } from '../pages';
import { Create } from '../streams/create';
import { Detail } from '../streams/detail';
import { StreamList } from '../streams/list';

export default function Streams({ named }: PageProps) {
  if (named.id === undefined) return <StreamList />;
  return named.id === 'new' ? <Create /> : <Detail key={named.id} id={named.id} />;
}
