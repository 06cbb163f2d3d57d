import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.AbstractMongoBackend;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
import java.util.List;

/**
 * Speaks MongoDB's protocol on loopback: {@code java MongoStandIn PORT [FILE]}; says which port it has. With a file, what
 * was answered is in it, also if the process is killed. It has no replicas, transactions, change streams and partial indexes.
 */
public final class MongoStandIn {
  private MongoStandIn() {}

  public static void main(String[] arguments) throws InterruptedException {
    AbstractMongoBackend backend = arguments.length > 1 ? new Durable(arguments[1]) : new MemoryBackend();
    backend.version(
        new MongoVersion() {
          @Override
          public List<Integer> getVersionArray() {
            return List.of(4, 4, 0, 0);
          }

          @Override
          public int getWireVersion() {
            return 9;
          }
        });
    MongoServer server = new MongoServer(backend);
    server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
    System.out.println(server.getLocalAddress().getPort());
    Thread.sleep(Long.MAX_VALUE);
  }

  private static final class Durable extends H2Backend {
    Durable(String file) {
      super(file);
    }

    @Override
    public Document handleMessage(MongoMessage message) {
      Document answer = super.handleMessage(message);
      String command = message.getDocument().keySet().iterator().next();
      if (List.of("insert", "update", "delete", "findAndModify", "createIndexes").contains(command)) {
        commit();
      }
      return answer;
    }
  }
}
