import java.util.HexFormat;
import java.util.Scanner;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.utils.Utils;

/** Adds to each key on standard input (hex) what Kafka's Java client makes of it: its hash, and partitions of 1, 6 and 1000. */
final class Murmur2 {
    public static void main(String[] arguments) {
        Scanner keys = new Scanner(System.in);
        while (keys.hasNextLine()) {
            String hex = keys.nextLine();
            byte[] key = HexFormat.of().parseHex(hex);
            System.out.printf("%s %d", hex, Utils.murmur2(key));
            for (int partitions : new int[] {1, 6, 1000}) {
                System.out.printf(" %d", BuiltInPartitioner.partitionForKey(key, partitions));
            }
            System.out.println();
        }
    }
}
