import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.Set;
import java.util.TreeSet;
import org.apache.calcite.config.Lex;
import org.apache.calcite.sql.SqlCall;
import org.apache.calcite.sql.SqlIdentifier;
import org.apache.calcite.sql.SqlJoin;
import org.apache.calcite.sql.SqlKind;
import org.apache.calcite.sql.SqlMatchRecognize;
import org.apache.calcite.sql.SqlNode;
import org.apache.calcite.sql.SqlNodeList;
import org.apache.calcite.sql.SqlSelect;
import org.apache.calcite.sql.SqlSnapshot;
import org.apache.calcite.sql.SqlTableRef;
import org.apache.calcite.sql.SqlWith;
import org.apache.calcite.sql.SqlWithItem;
import org.apache.calcite.sql.parser.SqlParseException;
import org.apache.calcite.sql.parser.SqlParser;
import org.apache.flink.sql.parser.impl.FlinkSqlParserImpl;
import org.apache.flink.sql.parser.validate.FlinkSqlConformance;

/**
 * Reads statements that passed the gate (hex, tab, their sources in hex) with Flink's own parser. Each that it takes must be one
 * query, hold no hint, and read exactly the sources that the gate found.
 */
final class FlinkParser {
    private static final Set<SqlKind> QUERIES = EnumSet.of(
            SqlKind.SELECT, SqlKind.ORDER_BY, SqlKind.WITH, SqlKind.UNION, SqlKind.INTERSECT, SqlKind.EXCEPT);

    private final Set<String> tables = new TreeSet<>();
    private final Set<String> named = new TreeSet<>();

    private void from(SqlNode node) {
        if (node instanceof SqlIdentifier) {
            tables.add(node.toString());
        } else if (node instanceof SqlTableRef) {
            SqlTableRef ref = (SqlTableRef) node;
            from(ref.operand(0));
            if (((SqlNodeList) ref.operand(1)).size() > 0) {
                tables.add("(a hint)");
            }
        } else if (node instanceof SqlJoin) {
            SqlJoin join = (SqlJoin) node;
            from(join.getLeft());
            from(join.getRight());
            expression(join.getCondition());
        } else if (node instanceof SqlMatchRecognize) {
            SqlMatchRecognize match = (SqlMatchRecognize) node;
            from(match.getTableRef());
            match.getOperandList().stream().skip(1).forEach(this::expression);
        } else if (node instanceof SqlSnapshot) {
            from(((SqlSnapshot) node).getTableRef());
            expression(((SqlSnapshot) node).getPeriod());
        } else if (node instanceof SqlCall
                && EnumSet.of(SqlKind.AS, SqlKind.EXPLICIT_TABLE, SqlKind.LATERAL, SqlKind.TABLESAMPLE, SqlKind.EXTEND,
                                SqlKind.PIVOT).contains(node.getKind())) {
            from(((SqlCall) node).operand(0));
        } else {
            expression(node);
        }
    }

    private void expression(SqlNode node) {
        if (node instanceof SqlNodeList) {
            ((SqlNodeList) node).forEach(this::expression);
        } else if (node instanceof SqlWith) {
            for (SqlNode item : ((SqlWith) node).withList) {
                named.add(((SqlWithItem) item).name.toString());
                expression(((SqlWithItem) item).query);
            }
            expression(((SqlWith) node).body);
        } else if (node instanceof SqlSelect) {
            SqlSelect select = (SqlSelect) node;
            from(select.getFrom());
            select.getOperandList().stream().filter(each -> each != select.getFrom()).forEach(this::expression);
            if (select.hasHints()) {
                tables.add("(a hint)");
            }
        } else if (node instanceof SqlTableRef || node instanceof SqlJoin || node instanceof SqlSnapshot
                || node instanceof SqlMatchRecognize) {
            from(node);
        } else if (node instanceof SqlCall && node.getKind() == SqlKind.EXPLICIT_TABLE) {
            from(((SqlCall) node).operand(0));
        } else if (node instanceof SqlCall) {
            ((SqlCall) node).getOperandList().forEach(this::expression);
        }
    }

    private static String text(String hex) {
        byte[] bytes = new byte[hex.length() / 2];
        for (int at = 0; at < bytes.length; at++) {
            bytes[at] = (byte) Integer.parseInt(hex.substring(2 * at, 2 * at + 2), 16);
        }
        return new String(bytes, StandardCharsets.UTF_8);
    }

    public static void main(String[] arguments) throws Exception {
        SqlParser.Config config = SqlParser.config().withParserFactory(FlinkSqlParserImpl.FACTORY)
                .withConformance(FlinkSqlConformance.DEFAULT).withLex(Lex.JAVA).withIdentifierMaxLength(256);
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        int taken = 0;
        int refused = 0;
        int wrong = 0;
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String sql = text(line.split("\t")[0]);
            Set<String> sources = new TreeSet<>(Arrays.asList(text(line.split("\t")[1]).split(",")));
            SqlNodeList statements;
            try {
                statements = SqlParser.create(sql, config).parseStmtList();
                SqlParser.create("EXPLAIN PLAN FOR\n" + sql + "\n", config).parseStmtList();
            } catch (SqlParseException fault) {
                refused++;
                continue;
            }
            taken++;
            FlinkParser parser = new FlinkParser();
            parser.expression(statements);
            parser.tables.removeAll(parser.named);
            if (statements.size() != 1 || !QUERIES.contains(statements.get(0).getKind()) || !parser.tables.equals(sources)) {
                wrong++;
                System.out.println("read " + parser.tables + ", the gate found " + sources + ": " + sql);
            }
        }
        System.out.println("Flink's parser took " + taken + " statements and refused " + refused + "; read otherwise: " + wrong);
        System.exit(wrong > 0 || taken < 100 ? 1 : 0);
    }
}
