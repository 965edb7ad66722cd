// Orders: the list, or one of them.
import type { PageProps } from '../pages';
import { Detail } from '../orders/detail';
import { List } from '../orders/list';

export default function Orders({ named }: PageProps) {
  return named.id === undefined ? <List /> : <Detail key={named.id} id={named.id} />;
}
